"""What people touch: live plots and widgets."""
