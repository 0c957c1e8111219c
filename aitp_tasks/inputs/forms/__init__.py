"""How a row of an SFT set becomes an example, whatever form the set comes in."""
