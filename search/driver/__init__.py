"""One search from start to end: what to try, who stops, what is recorded. Here alone Ray Tune meets a trial."""
