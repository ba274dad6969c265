"""All uses of private parts of Ray, Optuna and Keras. A test shows here if a new version of them breaks one."""
