"""What the flows run beside: local services, their compose file, migrations, dashboards."""
