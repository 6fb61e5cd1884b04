# Uses what S3 keeps of buckets and objects beside their data, and where it tells of them, as a client from outside of functions: buckets.py URL ACCESS-KEY SECRET
import boto3, base64, datetime, hashlib, http.client, json, sys, time, urllib.error, urllib.parse, urllib.request, zlib
from botocore.config import Config
from botocore.exceptions import ClientError
url, key, secret = sys.argv[1:4]
host = url.split('//')[1]
def cl(name, **k): return boto3.client(name, endpoint_url=url, region_name='us-east-1', aws_access_key_id=key, aws_secret_access_key=secret, config=Config(s3={'addressing_style': 'path'}, retries={'max_attempts': 0}, **k))
s = cl('s3')
def fails(code, f, *a, **k):
    try: f(*a, **k)
    except ClientError as e:
        assert e.response['Error']['Code'] == code, (code, e.response)
        return e.response
    raise AssertionError('no ' + code)
def plain(method, path, at=None, **h):
    'asks without a signature and follows nothing'
    c = http.client.HTTPConnection(host)
    c.request(method, path, headers={'Host': at or host, **h})
    r = c.getresponse()
    return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read()
B = 'buckets-outside'
s.create_bucket(Bucket=B)
s.head_bucket(Bucket=B)

# Documents are given back as they were put, and are gone when they are deleted.
rules = [{'AllowedMethods': ['GET', 'PUT'], 'AllowedOrigins': ['https://*.example'], 'AllowedHeaders': ['x-*'], 'ExposeHeaders': ['ETag'], 'MaxAgeSeconds': 60}]
encryption = {'Rules': [{'ApplyServerSideEncryptionByDefault': {'SSEAlgorithm': 'AES256'}, 'BucketKeyEnabled': False}]}
block = {'BlockPublicAcls': False, 'IgnorePublicAcls': False, 'BlockPublicPolicy': False, 'RestrictPublicBuckets': False}
public = json.dumps({'Version': '2012-10-17', 'Statement': [{'Effect': 'Allow', 'Principal': '*', 'Action': 's3:GetObject', 'Resource': 'arn:aws:s3:::%s/site/*' % B}]})
site = {'IndexDocument': {'Suffix': 'index.html'}, 'ErrorDocument': {'Key': 'site/error.html'}, 'RoutingRules': [
    {'Condition': {'KeyPrefixEquals': 'old/'}, 'Redirect': {'ReplaceKeyPrefixWith': 'site/'}},
    {'Condition': {'HttpErrorCodeReturnedEquals': '404', 'KeyPrefixEquals': 'site/gone'}, 'Redirect': {'HostName': 'elsewhere.example', 'Protocol': 'https', 'ReplaceKeyWith': 'new', 'HttpRedirectCode': '307'}}]}
for name, missing, put, got in [
    ('bucket_cors', 'NoSuchCORSConfiguration', {'CORSConfiguration': {'CORSRules': rules}}, lambda r: r['CORSRules'] == rules),
    ('bucket_encryption', 'ServerSideEncryptionConfigurationNotFoundError', {'ServerSideEncryptionConfiguration': encryption}, lambda r: r['ServerSideEncryptionConfiguration'] == encryption),
    ('bucket_ownership_controls', 'OwnershipControlsNotFoundError', {'OwnershipControls': {'Rules': [{'ObjectOwnership': 'ObjectWriter'}]}}, lambda r: r['OwnershipControls']['Rules'][0]['ObjectOwnership'] == 'ObjectWriter'),
    ('bucket_tagging', 'NoSuchTagSet', {'Tagging': {'TagSet': [{'Key': 'k', 'Value': 'v'}]}}, lambda r: r['TagSet'] == [{'Key': 'k', 'Value': 'v'}]),
    ('bucket_website', 'NoSuchWebsiteConfiguration', {'WebsiteConfiguration': site}, lambda r: r['RoutingRules'] == site['RoutingRules'] and r['ErrorDocument'] == site['ErrorDocument']),
    ('public_access_block', 'NoSuchPublicAccessBlockConfiguration', {'PublicAccessBlockConfiguration': block}, lambda r: r['PublicAccessBlockConfiguration'] == block),
    ('bucket_policy', 'NoSuchBucketPolicy', {'Policy': public}, lambda r: r['Policy'] == public),
]:
    fails(missing, getattr(s, 'get_' + name), Bucket=B)
    getattr(s, 'put_' + name)(Bucket=B, **put)
    assert got(getattr(s, 'get_' + name)(Bucket=B)), name
    getattr(s, 'delete_' + name)(Bucket=B)
    fails(missing, getattr(s, 'get_' + name), Bucket=B)
    getattr(s, 'put_' + name)(Bucket=B, **put)
lifecycle = [{'ID': 'all', 'Status': 'Enabled', 'Filter': {'And': {'Prefix': 'tmp/', 'Tags': [{'Key': 'a', 'Value': 'b'}], 'ObjectSizeGreaterThan': 10}}, 'Expiration': {'Days': 3}, 'NoncurrentVersionExpiration': {'NoncurrentDays': 2, 'NewerNoncurrentVersions': 1}}]
s.put_bucket_lifecycle_configuration(Bucket=B, LifecycleConfiguration={'Rules': lifecycle})
assert s.get_bucket_lifecycle_configuration(Bucket=B)['Rules'] == lifecycle
s.delete_bucket_lifecycle(Bucket=B)
fails('NoSuchLifecycleConfiguration', s.get_bucket_lifecycle_configuration, Bucket=B)
for bad, code in [({'Days': 0}, 'InvalidArgument'), ({'Date': datetime.datetime(2030, 1, 1, 5)}, 'InvalidArgument'), ({'Days': 1, 'ExpiredObjectDeleteMarker': True}, 'MalformedXML')]:
    fails(code, s.put_bucket_lifecycle_configuration, Bucket=B, LifecycleConfiguration={'Rules': [{'Status': 'Enabled', 'Filter': {'Prefix': ''}, 'Expiration': bad}]})
assert s.get_bucket_policy_status(Bucket=B)['PolicyStatus']['IsPublic'] is True
fails('MalformedPolicy', s.put_bucket_policy, Bucket=B, Policy='{"Statement":[]}')
fails('ReplicationConfigurationNotFoundError', s.get_bucket_replication, Bucket=B)
s.delete_bucket_replication(Bucket=B)
s.put_bucket_accelerate_configuration(Bucket=B, AccelerateConfiguration={'Status': 'Suspended'})
assert s.get_bucket_accelerate_configuration(Bucket=B)['Status'] == 'Suspended'
assert s.get_bucket_request_payment(Bucket=B)['Payer'] == 'BucketOwner'
s.put_bucket_request_payment(Bucket=B, RequestPaymentConfiguration={'Payer': 'Requester'})
assert s.get_bucket_request_payment(Bucket=B)['Payer'] == 'Requester'
s.put_bucket_logging(Bucket=B, BucketLoggingStatus={'LoggingEnabled': {'TargetBucket': B, 'TargetPrefix': 'log/'}})
assert s.get_bucket_logging(Bucket=B)['LoggingEnabled']['TargetPrefix'] == 'log/'
s.put_bucket_acl(Bucket=B, ACL='public-read')
assert any(g['Permission'] == 'READ' and g['Grantee'].get('URI', '').endswith('AllUsers') for g in s.get_bucket_acl(Bucket=B)['Grants'])
assert plain('GET', '/%s?list-type=2' % B)[0] == 200
s.put_bucket_acl(Bucket=B, ACL='private')
assert plain('GET', '/%s?list-type=2' % B)[0] == 403

# A website: index, errors and redirects, of what the policy makes public.
for k in ('site/index.html', 'site/error.html', 'site/sub/index.html'): s.put_object(Bucket=B, Key=k, Body=k.encode(), ContentType='text/html')
s.put_object(Bucket=B, Key='site/moved', WebsiteRedirectLocation='/site/index.html')
s.put_object(Bucket=B, Key='secret', Body=b'no')
www = B + '.s3-website.localhost'
assert plain('GET', '/site/', www)[2] == b'site/index.html'
st, h, body = plain('GET', '/site/sub', www); assert st == 302 and h['location'] == '/site/sub/', (st, h)
st, h, body = plain('GET', '/site/nothing', www); assert st == 404 and body == b'site/error.html' and h['content-type'] == 'text/html', (st, h, body)
st, h, body = plain('GET', '/site/moved', www); assert st == 301 and h['location'] == '/site/index.html', (st, h)
st, h, body = plain('GET', '/old/index.html', www); assert st == 301 and h['location'].endswith('/site/index.html'), (st, h)
st, h, body = plain('GET', '/site/gone/x', www); assert st == 307 and h['location'] == 'https://elsewhere.example/new', (st, h)
st, h, body = plain('GET', '/secret', www); assert st == 403, (st, body)
assert plain('POST', '/site/', www)[0] == 405
s.put_bucket_website(Bucket=B, WebsiteConfiguration={'RedirectAllRequestsTo': {'HostName': 'all.example', 'Protocol': 'https'}})
st, h, body = plain('GET', '/a/b', www); assert st == 301 and h['location'] == 'https://all.example/a/b', (st, h)

# Pages of other origins.
ask = {'Origin': 'https://a.example', 'Access-Control-Request-Method': 'PUT', 'Access-Control-Request-Headers': 'x-amz-date,x-custom'}
st, h, body = plain('OPTIONS', '/%s/site/index.html' % B, **ask)
assert st == 200 and h['access-control-allow-origin'] == 'https://a.example' and h['access-control-max-age'] == '60' and 'PUT' in h['access-control-allow-methods'] and h['access-control-allow-headers'] == 'x-amz-date, x-custom', (st, h)
for wrong in ({'Origin': 'https://a.example.org'}, {'Access-Control-Request-Method': 'DELETE'}, {'Access-Control-Request-Headers': 'authorization'}):
    st, h, body = plain('OPTIONS', '/%s/site/index.html' % B, **{**ask, **wrong}); assert st == 403 and b'<Code>AccessForbidden</Code>' in body and 'access-control-allow-origin' not in h, (st, h, body)
st, h, body = plain('GET', '/%s/site/index.html' % B, Origin='https://a.example'); assert st == 200 and h['access-control-allow-origin'] == 'https://a.example' and h['access-control-expose-headers'] == 'ETag', (st, h)
st, h, body = plain('GET', '/%s/site/index.html' % B, Origin='https://other'); assert st == 200 and 'access-control-allow-origin' not in h, (st, h)

# What is said of an object.
s.put_object(Bucket=B, Key='o', Body=b'0123456789', ACL='public-read', Tagging='a=b')
assert len(s.get_object_acl(Bucket=B, Key='o')['Grants']) == 2
s.put_object_acl(Bucket=B, Key='o', ACL='private')
assert len(s.get_object_acl(Bucket=B, Key='o')['Grants']) == 1
s.delete_object_tagging(Bucket=B, Key='o')
assert s.get_object_tagging(Bucket=B, Key='o')['TagSet'] == []

# An upload of copied parts, and one that is given up.
s.put_object(Bucket=B, Key='src', Body=b'x' * (6 << 20))
u = s.create_multipart_upload(Bucket=B, Key='parts', ChecksumAlgorithm='CRC32', ChecksumType='FULL_OBJECT')
assert u['ChecksumType'] == 'FULL_OBJECT', u
parts = [{'PartNumber': n, 'ETag': s.upload_part_copy(Bucket=B, Key='parts', UploadId=u['UploadId'], PartNumber=n, CopySource={'Bucket': B, 'Key': 'src'}, CopySourceRange=r)['CopyPartResult']['ETag']} for n, r in ((1, 'bytes=0-5242879'), (2, 'bytes=5242880-6291455'))]
fails('InvalidArgument', s.upload_part_copy, Bucket=B, Key='parts', UploadId=u['UploadId'], PartNumber=3, CopySource={'Bucket': B, 'Key': 'src'}, CopySourceRange='bytes=0-99999999')
r = s.complete_multipart_upload(Bucket=B, Key='parts', UploadId=u['UploadId'], MultipartUpload={'Parts': parts})
assert base64.b64decode(r['ChecksumCRC32']) == zlib.crc32(b'x' * (6 << 20)).to_bytes(4, 'big') and r['ChecksumType'] == 'FULL_OBJECT', r
assert s.head_object(Bucket=B, Key='parts', PartNumber=2)['ContentLength'] == 1 << 20
a = s.get_object_attributes(Bucket=B, Key='parts', ObjectAttributes=['Checksum', 'ObjectParts', 'ObjectSize'])
assert a['Checksum']['ChecksumCRC32'] == r['ChecksumCRC32'] and a['ObjectParts']['TotalPartsCount'] == 2 and [p['Size'] for p in a['ObjectParts']['Parts']] == [5 << 20, 1 << 20], a
u = s.create_multipart_upload(Bucket=B, Key='parts')['UploadId']
s.upload_part(Bucket=B, Key='parts', UploadId=u, PartNumber=1, Body=b'x')
s.abort_multipart_upload(Bucket=B, Key='parts', UploadId=u)
fails('NoSuchUpload', s.abort_multipart_upload, Bucket=B, Key='parts', UploadId=u)
bare = cl('s3', request_checksum_calculation='when_required')
assert bare.put_object(Bucket=B, Key='bare', Body=b'123456789')['ChecksumCRC64NVME'] == 'rosUhgp5mIg='
assert s.head_object(Bucket=B, Key='bare', ChecksumMode='ENABLED')['ChecksumCRC64NVME'] == 'rosUhgp5mIg='
u = bare.create_multipart_upload(Bucket=B, Key='bare')['UploadId']
e = bare.upload_part(Bucket=B, Key='bare', UploadId=u, PartNumber=1, Body=b'123456789')['ETag']
r = bare.complete_multipart_upload(Bucket=B, Key='bare', UploadId=u, MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': e}]})
assert r['ChecksumCRC64NVME'] == 'rosUhgp5mIg=' and r['ChecksumType'] == 'FULL_OBJECT', r

# Locks.
L = 'buckets-locked'
s.create_bucket(Bucket=L, ObjectLockEnabledForBucket=True)
assert s.get_bucket_versioning(Bucket=L)['Status'] == 'Enabled'
s.put_object_lock_configuration(Bucket=L, ObjectLockConfiguration={'ObjectLockEnabled': 'Enabled', 'Rule': {'DefaultRetention': {'Mode': 'GOVERNANCE', 'Days': 1}}})
assert s.get_object_lock_configuration(Bucket=L)['ObjectLockConfiguration']['Rule']['DefaultRetention']['Days'] == 1
v = s.put_object(Bucket=L, Key='k', Body=b'1')['VersionId']
h = s.head_object(Bucket=L, Key='k')
assert h['ObjectLockMode'] == 'GOVERNANCE' and abs(h['ObjectLockRetainUntilDate'] - datetime.datetime.now(datetime.timezone.utc)) <= datetime.timedelta(days=1), h
fails('AccessDenied', s.delete_object, Bucket=L, Key='k', VersionId=v)
s.put_object_legal_hold(Bucket=L, Key='k', LegalHold={'Status': 'ON'})
assert s.get_object_legal_hold(Bucket=L, Key='k')['LegalHold']['Status'] == 'ON'
fails('AccessDenied', s.delete_object, Bucket=L, Key='k', VersionId=v, BypassGovernanceRetention=True)
s.put_object_legal_hold(Bucket=L, Key='k', LegalHold={'Status': 'OFF'})
until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=2)
s.put_object_retention(Bucket=L, Key='k', Retention={'Mode': 'GOVERNANCE', 'RetainUntilDate': until})
assert abs(s.get_object_retention(Bucket=L, Key='k')['Retention']['RetainUntilDate'] - until).total_seconds() < 2
fails('AccessDenied', s.delete_object, Bucket=L, Key='k', VersionId=v)
s.delete_object(Bucket=L, Key='k', VersionId=v, BypassGovernanceRetention=True)

# Notifications: to a queue, to a topic and what it has subscribed, and to the event bus; each filtered.
q, topics, events = cl('sqs'), cl('sns'), cl('events')
def queue(name):
    u = q.create_queue(QueueName=name)['QueueUrl']
    return u, q.get_queue_attributes(QueueUrl=u, AttributeNames=['QueueArn'])['Attributes']['QueueArn']
(direct, direct_arn), (viatopic, viatopic_arn), (viabus, viabus_arn) = queue('b-direct'), queue('b-topic'), queue('b-bus')
topic = topics.create_topic(Name='b-topic')['TopicArn']
topics.subscribe(TopicArn=topic, Protocol='sqs', Endpoint=viatopic_arn, Attributes={'RawMessageDelivery': 'true'})
events.put_rule(Name='b-rule', EventPattern=json.dumps({'source': ['aws.s3'], 'detail': {'bucket': {'name': [B]}, 'object': {'key': [{'prefix': 'in/'}]}}}))
events.put_targets(Rule='b-rule', Targets=[{'Id': '1', 'Arn': viabus_arn}])
s.put_bucket_notification_configuration(Bucket=B, NotificationConfiguration={
    'QueueConfigurations': [{'Id': 'to-queue', 'QueueArn': direct_arn, 'Events': ['s3:ObjectCreated:*', 's3:ObjectRemoved:Delete'], 'Filter': {'Key': {'FilterRules': [{'Name': 'prefix', 'Value': 'in/'}, {'Name': 'suffix', 'Value': '.txt'}]}}}],
    'TopicConfigurations': [{'Id': 'to-topic', 'TopicArn': topic, 'Events': ['s3:ObjectTagging:*']}], 'EventBridgeConfiguration': {}})
n = s.get_bucket_notification_configuration(Bucket=B)
assert n['QueueConfigurations'][0]['Id'] == 'to-queue' and n['TopicConfigurations'][0]['TopicArn'] == topic and 'EventBridgeConfiguration' in n, n
fails('InvalidArgument', s.put_bucket_notification_configuration, Bucket=B, NotificationConfiguration={'QueueConfigurations': [{'QueueArn': direct_arn, 'Events': ['s3:Nothing']}]})
s.put_object(Bucket=B, Key='out/a.txt', Body=b'x'); s.put_object(Bucket=B, Key='in/a.png', Body=b'x')
s.put_object(Bucket=B, Key='in/ä b.txt', Body=b'hello')
s.put_object_tagging(Bucket=B, Key='in/ä b.txt', Tagging={'TagSet': []})
s.delete_object(Bucket=B, Key='in/ä b.txt')
def receive(u, want):
    'the bodies of messages, until as many are there'
    got, end = [], time.time() + 120
    while len(got) < want and time.time() < end:
        for m in q.receive_message(QueueUrl=u, WaitTimeSeconds=5, MaxNumberOfMessages=10).get('Messages', []):
            got.append(json.loads(m['Body'])); q.delete_message(QueueUrl=u, ReceiptHandle=m['ReceiptHandle'])
    return got
got = sorted((r['eventName'], r['s3']['object']['key']) for m in receive(direct, 2) for r in m['Records'])
assert got == [('ObjectCreated:Put', 'in/%C3%A4+b.txt'), ('ObjectRemoved:Delete', 'in/%C3%A4+b.txt')], got
got = [(r['eventName'], r['s3']['object']['key'], r['s3']['bucket']['name']) for m in receive(viatopic, 1) for r in m['Records']]
assert got == [('ObjectTagging:Put', 'in/%C3%A4+b.txt', B)], got
got = sorted((m['detail-type'], m['detail']['object']['key'], m['detail'].get('reason')) for m in receive(viabus, 4))
assert got == [('Object Created', 'in/a.png', 'PutObject'), ('Object Created', 'in/ä b.txt', 'PutObject'), ('Object Deleted', 'in/ä b.txt', 'DeleteObject'), ('Object Tags Added', 'in/ä b.txt', None)], got
s.put_bucket_notification_configuration(Bucket=B, NotificationConfiguration={})
assert 'QueueConfigurations' not in s.get_bucket_notification_configuration(Bucket=B)
print('all of buckets')
