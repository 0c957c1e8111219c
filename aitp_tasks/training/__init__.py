"""Fine-tuning: conversations to examples, and the ranks that train on them."""
