# Uses SNS as a client from outside of functions: sns.py URL ACCESS-KEY SECRET
import boto3, json, sys
from botocore.exceptions import ClientError
url, key, secret = sys.argv[1:4]
c = lambda n: boto3.client(n, endpoint_url=url, region_name='eu-west-1', aws_access_key_id=key, aws_secret_access_key=secret)
sns, sqs = c('sns'), c('sqs')
def fails(code, f, **k):
    try: f(**k)
    except ClientError as e:
        assert e.response['Error']['Code'] == code, (code, e.response)
        return
    raise AssertionError('no ' + code)
def queue(name, **attributes):
    u = sqs.create_queue(QueueName=name, Attributes=attributes)['QueueUrl']
    return u, sqs.get_queue_attributes(QueueUrl=u, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
def take(u):
    r = sqs.receive_message(QueueUrl=u, WaitTimeSeconds=20, MessageAttributeNames=['All'])['Messages'][0]
    sqs.delete_message(QueueUrl=u, ReceiptHandle=r['ReceiptHandle'])
    return r
t = sns.create_topic(Name='news', Tags=[{'Key': 'a', 'Value': 'b'}])['TopicArn']
assert t == sns.create_topic(Name='news', Tags=[{'Key': 'a', 'Value': 'b'}])['TopicArn'] and t.endswith(':news'), t
assert t in [x['TopicArn'] for x in sns.list_topics()['Topics']]
all_, all_arn = queue('all'); some, some_arn = queue('some')
s1 = sns.subscribe(TopicArn=t, Protocol='sqs', Endpoint=all_arn, ReturnSubscriptionArn=True)['SubscriptionArn']
s2 = sns.subscribe(TopicArn=t, Protocol='sqs', Endpoint=some_arn, Attributes={'RawMessageDelivery': 'true', 'FilterPolicy': '{"kind": ["big"]}'}, ReturnSubscriptionArn=True)['SubscriptionArn']
assert {s['SubscriptionArn'] for s in sns.list_subscriptions_by_topic(TopicArn=t)['Subscriptions']} == {s1, s2}
m1 = sns.publish(TopicArn=t, Message='small', Subject='S', MessageAttributes={'kind': {'DataType': 'String', 'StringValue': 'small'}})['MessageId']
m2 = sns.publish(TopicArn=t, Message='large', MessageAttributes={'kind': {'DataType': 'String', 'StringValue': 'big'}})['MessageId']
got = {}
for _ in range(2):
    b = json.loads(take(all_)['Body'])
    got[b['MessageId']] = b
assert got[m1]['Message'] == 'small' and got[m1]['Subject'] == 'S' and got[m1]['TopicArn'] == t and got[m1]['Type'] == 'Notification', got
assert got[m2]['MessageAttributes'] == {'kind': {'Type': 'String', 'Value': 'big'}}, got
r = take(some)
assert r['Body'] == 'large' and r['MessageAttributes']['kind']['StringValue'] == 'big', r
assert sns.get_subscription_attributes(SubscriptionArn=s2)['Attributes']['RawMessageDelivery'] == 'true'
sns.set_subscription_attributes(SubscriptionArn=s2, AttributeName='FilterPolicy', AttributeValue='{"kind": ["other"]}')
r = sns.publish_batch(TopicArn=t, PublishBatchRequestEntries=[{'Id': 'a', 'Message': 'x', 'MessageAttributes': {'kind': {'DataType': 'String', 'StringValue': 'other'}}}, {'Id': 'b', 'Message': 'y'}])
assert len(r['Successful']) == 2, r
assert take(some)['Body'] == 'x'
sns.unsubscribe(SubscriptionArn=s2)
assert len(sns.list_subscriptions_by_topic(TopicArn=t)['Subscriptions']) == 1
fails('NotFound', sns.publish, TopicArn=t + 'x', Message='x')
fails('InvalidParameter', sns.publish, TopicArn=t, Message='')
f = sns.create_topic(Name='news.fifo', Attributes={'FifoTopic': 'true', 'ContentBasedDeduplication': 'true'})['TopicArn']
q, q_arn = queue('in.fifo', FifoQueue='true')
sns.subscribe(TopicArn=f, Protocol='sqs', Endpoint=q_arn, Attributes={'RawMessageDelivery': 'true'})
for i in range(3): sns.publish(TopicArn=f, Message='m%d' % (i // 2), MessageGroupId='g')
assert [take(q)['Body'] for _ in range(2)] == ['m0', 'm1']
fails('InvalidParameter', sns.publish, TopicArn=f, Message='no group')
sns.delete_topic(TopicArn=t)
fails('NotFound', sns.get_topic_attributes, TopicArn=t)
print('all of SNS')
