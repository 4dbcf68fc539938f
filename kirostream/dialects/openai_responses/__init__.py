"""OpenAI Responses (client-apis.md section 3)."""
