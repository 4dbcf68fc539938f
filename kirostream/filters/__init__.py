"""What changes between the dialects: requests by `request_rules`, in the order of its table."""
