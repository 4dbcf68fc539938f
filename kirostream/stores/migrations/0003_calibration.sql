-- By how much our estimates of prompts are off, by family of models.
CREATE TABLE calibration (
    family TEXT PRIMARY KEY,
    ratios TEXT NOT NULL -- JSON: observed / estimated of the last prompts, oldest first
);
