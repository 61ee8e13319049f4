"""What is known of Pyro programs and their data: modules, parameters, plates, batches, randomness, errors."""
