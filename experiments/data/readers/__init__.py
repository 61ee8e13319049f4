"""What people bring: each kind of file or object is read by one module into what `found.Found` holds."""
