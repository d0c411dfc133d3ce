"""What `make up` and `make down` do: credentials, ports, processes under a keeper, health, the chain's progress."""
