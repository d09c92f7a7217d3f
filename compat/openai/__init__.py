"""OpenAI's wire formats.  Source: https://platform.openai.com/docs/api-reference"""
