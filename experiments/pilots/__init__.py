"""Small trainings that decided a constant."""
