"""Training data: conversations and crayon instructions as samples, and the order in which they are trained on."""
