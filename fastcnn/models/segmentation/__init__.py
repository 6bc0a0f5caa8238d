"""Networks from an image to a map of classes."""
