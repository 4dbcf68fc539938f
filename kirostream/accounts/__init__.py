"""Who may call, and with what: credentials, the tokens made of them, and where both are kept."""
