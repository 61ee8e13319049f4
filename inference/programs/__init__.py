"""What is known of Pyro programs and their data: pairs, modules, parameters, plates, batches, randomness, errors."""
