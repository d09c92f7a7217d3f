"""Every answer of every endpoint, held to the schemas that OpenAI and Anthropic publish."""
