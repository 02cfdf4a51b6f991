"""A trained model -> a folder that other tools load."""
