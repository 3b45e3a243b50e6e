"""How the shipped checkpoint was made: sentences, synthesis with espeak-ng, training, export. See
README.md.
"""
