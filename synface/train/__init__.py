"""Training: recognizers on images tables, with Ray Train."""
