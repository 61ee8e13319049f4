"""The bound taken apart: rate, distortion, and what the aggregate posterior makes of the rate."""
