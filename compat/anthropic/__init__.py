"""Anthropic's wire formats.  Source: https://platform.claude.com/docs/en/api/messages"""
