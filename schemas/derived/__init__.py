"""What follows from a field table: Arrow, kernel rows, SQL, Avro, expectations.

Nothing is declared here. Imports the field tables; every room may import it.
"""
