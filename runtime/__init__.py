"""What an application embeds: a bundle goes in, answers about pictures come out."""
