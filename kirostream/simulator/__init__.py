"""An upstream that lies on request: Kiro's service in small, on a real socket, steered by what the user says."""
