"""What `make up` and `make down` do: secrets, ports, processes under a keeper, health, progress of the chain."""
