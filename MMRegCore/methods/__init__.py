"""The methods that find a deformation: prepared pair in, displacement out."""
