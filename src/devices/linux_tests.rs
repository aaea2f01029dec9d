//! What Linux 6.1 does to these devices while it boots, step by step, and what it must see.
