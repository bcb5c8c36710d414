"""What is kept of a run and when: observables, schedules, and the file they go to."""
