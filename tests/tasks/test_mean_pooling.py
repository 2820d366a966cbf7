import torch
from transformers import AutoModel

from randlora.tasks.classification.mean_pooling import MeanPoolingClassifier


def test_the_head_reads_the_mean_of_the_texts_own_tokens(bert):
    encoder = AutoModel.from_pretrained(bert, num_labels=3)
    model = MeanPoolingClassifier(encoder.config, encoder).eval()
    ids = torch.tensor([[2, 5, 6, 3, 0, 0], [2, 7, 8, 9, 10, 3]])
    mask = (ids != 0).long()
    states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    means = torch.stack([states[0, :4].mean(dim=0), states[1].mean(dim=0)])
    torch.testing.assert_close(model(ids, mask).logits, model.classifier(means))
    # Padding more changes nothing.
    longer = model(torch.nn.functional.pad(ids, (0, 3)), torch.nn.functional.pad(mask, (0, 3))).logits
    torch.testing.assert_close(longer, model(ids, mask).logits)
