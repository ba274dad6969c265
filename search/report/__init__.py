"""What is shown: progress, leaderboard, and pages that are made from the record alone."""
