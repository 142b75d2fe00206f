"""Values → IDs and scaled numbers, fitted on the training part."""
