"""A trained model that leaves this package: two programs, its tables, and a description of their inputs."""
