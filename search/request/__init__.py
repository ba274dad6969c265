"""What was asked, with what, and on what; checked whole before anything starts."""
