"""`python -m tutelage`, and `torchrun -m tutelage`."""

from tutelage.cli import program

program()
