"""Places: how to address an upstream, and what its refusals mean. Pure: it says what to send, and sends nothing."""
