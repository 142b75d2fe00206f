"""The processes of one job: who they are, how they meet, what they sum and what each of them holds."""
