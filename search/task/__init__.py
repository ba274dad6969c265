"""What is predicted, and by which metrics it is judged."""
