"""What a test's process keeps from trial to trial: there is one pool in each, whoever trains in it."""

from search.trial.reuse import Pool

POOL = Pool()
