"""Judge data and models: schemas, scores, reports and the gate. Import the modules; each brings what it needs."""
