"""The wire: messages, limits, methods and errors of the sites' door, for both of its sides."""
