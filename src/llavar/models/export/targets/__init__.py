"""One module for each engine or place; each has an object ``TARGET``."""
