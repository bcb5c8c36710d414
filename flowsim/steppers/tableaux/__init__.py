"""Coefficients of the Runge-Kutta methods, one method a file."""
