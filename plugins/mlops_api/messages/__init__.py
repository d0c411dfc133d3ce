"""The answers of the API, from which its OpenAPI document is made; a module for each of its parts."""
