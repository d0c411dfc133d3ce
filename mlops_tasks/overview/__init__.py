"""What a desk looks at first: whether the operation is healthy, what is under way, and what waits for a person.

It is read from the state database and from files, so it is there while MLflow and the scoring service are not.
"""
