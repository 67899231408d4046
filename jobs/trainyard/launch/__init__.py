"""How processes meet: the node's warm process, Ray, the driver's attempts, and what a person sees of it."""
