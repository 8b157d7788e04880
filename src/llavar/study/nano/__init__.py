"""The embedded model: how it is made from nothing but pictures that we render, and where its files lie."""
