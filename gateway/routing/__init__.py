"""From a model's name to an answer: candidate routes, and the attempts along them."""
