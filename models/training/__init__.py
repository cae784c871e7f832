"""What the systems have in common when they are trained."""
