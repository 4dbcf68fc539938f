"""OpenAI Chat Completions (client-apis.md section 2)."""
